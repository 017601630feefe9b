"""One thin nn.Module per graph: the only place where upstream tensor names appear.

`f` is the dtype of weights and activations. Norms and softmax compute in fp32 whatever it is.
"""

from .heads import ImageDraw, ImageEmbed, ImageHead, TextDraw, TextEmbed, TextHead
from .language_model import LanguageModel
from .vision import VisionEncoder
from .vq import ImageDecoder, ImageEncoder

__all__ = [
    "ImageDecoder",
    "ImageDraw",
    "ImageEmbed",
    "ImageEncoder",
    "ImageHead",
    "LanguageModel",
    "TextDraw",
    "TextEmbed",
    "TextHead",
    "VisionEncoder",
]
