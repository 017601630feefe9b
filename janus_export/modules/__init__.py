"""One thin nn.Module per graph: the only place where upstream tensor names appear.

`f` is the dtype of weights and activations. Norms and softmax compute in fp32 whatever it is.
"""

from .flow import FlowStep
from .heads import ImageDraw, ImageEmbed, ImageHead, TextDraw, TextEmbed, TextHead
from .language_model import LanguageModel
from .uvit import TimeEmbed
from .vision import VisionEncoder
from .vq import ImageDecoder, ImageEncoder, LatentDecoder

__all__ = [
    "FlowStep",
    "ImageDecoder",
    "ImageDraw",
    "ImageEmbed",
    "ImageEncoder",
    "ImageHead",
    "LanguageModel",
    "LatentDecoder",
    "TextDraw",
    "TextEmbed",
    "TextHead",
    "TimeEmbed",
    "VisionEncoder",
]
