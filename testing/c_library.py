"""The C library through ctypes: what a binding of another language does, and how these tests reach it. See cpp/include/janus/janus.h."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class OpenOptions(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("bundle", c_char_p),
        ("onnxruntime", c_char_p),
        ("num_threads", c_int32),
        ("disable_telemetry", c_int32),
    ]


SOLVERS = {"euler": 1, "ab2": 2}


class Info(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("family", c_char_p),
        ("precision", c_char_p),
        ("backend", c_char_p),
        *(
            (name, c_int32)
            for name in ("generates", "understands", "random_weights", "picture_size", "num_image_ids", "max_length", "steps")
        ),
        ("max_tokens", c_int32),
        ("cfg_weight", c_double),
        ("temperature", c_double),
        ("ab2_steps", c_int32),
        ("ab2_shift", c_double),
        ("euler_shift", c_double),
    ]


class CImage(Structure):
    _fields_ = [("struct_size", c_size_t), ("width", c_uint32), ("height", c_uint32), ("stride", c_size_t), ("rgb", POINTER(c_uint8))]


class CPicture(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("number", c_size_t),
        ("prompt", c_size_t),
        ("seed", c_uint64),
        ("width", c_uint32),
        ("height", c_uint32),
        ("rgb", POINTER(c_uint8)),
        ("image_ids", POINTER(c_int32)),
        ("num_image_ids", c_size_t),
        ("latents", POINTER(c_float)),
        ("num_latents", c_size_t),
        *((name, c_double) for name in ("load_ms", "encode_ms", "prefill_ms", "steps_ms", "decode_ms")),
    ]


ON_STEP = ctypes.CFUNCTYPE(ctypes.c_int, c_size_t, c_size_t, c_void_p)
ON_PICTURE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER(CPicture), c_void_p)
ON_TEXT = ctypes.CFUNCTYPE(ctypes.c_int, POINTER(ctypes.c_char), c_size_t, POINTER(c_int32), c_size_t, c_void_p)


class GenerateOptions(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("prompts", POINTER(c_char_p)),
        ("num_prompts", c_size_t),
        ("n", c_size_t),
        ("seed", c_uint64),
        ("batch_size", c_size_t),
        ("cfg_weight", c_double),
        ("temperature", c_double),
        ("top_k", c_uint64),
        ("top_p", c_double),
        ("steps", c_int32),
        ("image", POINTER(CImage)),
        ("image_weight", c_double),
        ("cancel", c_void_p),
        ("on_step", ON_STEP),
        ("on_picture", ON_PICTURE),
        ("user", c_void_p),
        ("solver", c_int32),
    ]


class AskOptions(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("text", c_char_p),
        ("images", POINTER(POINTER(CImage))),
        ("num_images", c_size_t),
        ("max_tokens", c_int32),
        ("temperature", c_double),
        ("top_k", c_uint64),
        ("top_p", c_double),
        ("seed", c_uint64),
        ("cancel", c_void_p),
        ("on_text", ON_TEXT),
        ("user", c_void_p),
    ]


class CAnswer(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("stop", c_int32),
        ("num_tokens", c_size_t),
        *((name, c_double) for name in ("load_ms", "encode_ms", "prefill_ms", "steps_ms")),
    ]


class CError(Exception):
    """What a call of the library says: `code` is Python's `.code`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Picture:
    number: int
    prompt: int
    seed: int
    pixels: NDArray[np.uint8]
    image_ids: NDArray[np.int32] | None
    latents: NDArray[np.float32] | None
    timings: dict[str, float]


@dataclass
class Said:
    text: str
    text_ids: list[int]
    stop: str
    timings: dict[str, float]


def find_onnxruntime() -> Path:
    """The wheel's library."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    (found,) = folder.glob("libonnxruntime.so.*")
    return found


class Library:
    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.janus_version.restype = self.c.janus_message.restype = self.c.janus_status_name.restype = c_char_p
        for name in ("open_options", "generate_options", "ask_options"):
            getattr(self.c, f"janus_{name}_init").argtypes = [c_void_p, c_size_t]
        for name in ("close", "chat_close", "cancel", "cancel_token_destroy", "image_free"):
            getattr(self.c, f"janus_{name}").argtypes = [c_void_p]

    def check(self, status: int) -> None:
        if status:
            raise CError(self.c.janus_status_name(status).decode(), self.c.janus_message().decode())

    def image(self, path: str | bytes, keep_orientation: bool = False) -> "Image":
        found = POINTER(CImage)()
        self.check(
            self.c.janus_image_read(path if isinstance(path, bytes) else str(path).encode(), c_int32(keep_orientation), byref(found))
        )
        return Image(self, found)

    def decode_image(self, data: bytes, name: str | None = None, keep_orientation: bool = False) -> "Image":
        found = POINTER(CImage)()
        named = None if name is None else name.encode()
        self.check(self.c.janus_image_decode(data, c_size_t(len(data)), named, c_int32(keep_orientation), byref(found)))
        return Image(self, found)


class Image:
    """A picture that the library read."""

    def __init__(self, library: Library, pointer: Any) -> None:
        self._library, self.pointer = library, pointer

    @property
    def pixels(self) -> NDArray[np.uint8]:
        image = self.pointer.contents
        return np.ctypeslib.as_array(image.rgb, (image.height, image.width, 3)).copy()

    def __del__(self) -> None:
        self._library.c.janus_image_free(self.pointer)


def c_image(pixels: NDArray[np.uint8]) -> CImage:
    """RGB [height, width, 3], kept by the result, whose lines may lie apart."""
    image = CImage(ctypes.sizeof(CImage), pixels.shape[1], pixels.shape[0], pixels.strides[0], pixels.ctypes.data_as(POINTER(c_uint8)))
    image.kept = pixels
    return image


class Model:
    def __init__(self, library: Library, bundle: Path | bytes, onnxruntime: Path, num_threads: int = 0) -> None:
        self.library, self.c = library, library.c
        options = OpenOptions()
        self.c.janus_open_options_init(byref(options), ctypes.sizeof(options))
        options.bundle, options.onnxruntime = bundle if isinstance(bundle, bytes) else str(bundle).encode(), str(onnxruntime).encode()
        options.num_threads = num_threads
        self.handle = c_void_p()
        library.check(self.c.janus_open(byref(options), byref(self.handle)))

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.c.janus_close(self.handle)

    def info(self) -> Info:
        info = Info(ctypes.sizeof(Info))
        self.library.check(self.c.janus_model_info(self.handle, byref(info)))
        return info

    def generate(
        self,
        prompts: str | Sequence[str | bytes],
        *,
        on_step: Callable[[int, int], Any] = lambda step, total: 1,
        on_picture: Callable[[Picture], Any] = lambda picture: 1,
        image: Any = None,
        **settings: Any,
    ) -> list[Picture]:
        """A callback that returns 0 stops the call."""
        given = [prompts] if isinstance(prompts, str) else list(prompts)
        options = GenerateOptions()
        self.c.janus_generate_options_init(byref(options), ctypes.sizeof(options))
        options.prompts = (c_char_p * len(given))(*(each if isinstance(each, bytes) else each.encode() for each in given))
        options.num_prompts = len(given)
        for name, value in settings.items():
            setattr(options, name, SOLVERS.get(value, value) if name == "solver" else value)
        if image is not None:
            options.image = image
        pictures: list[Picture] = []

        def take(pointer: Any, _: Any) -> int:
            pictures.append(_picture(pointer.contents))
            return int(on_picture(pictures[-1]))

        options.on_picture, options.on_step = ON_PICTURE(take), ON_STEP(lambda step, total, _: int(on_step(step, total)))
        self.library.check(self.c.janus_generate(self.handle, byref(options)))
        return pictures

    def describe(self, images: Sequence[Any], text: str | bytes, **settings: Any) -> Said:
        """`images`: what `c_image` gives, or pointers of `Image`."""
        return _ask(self.library, self.c.janus_describe, self.handle, images, text, **settings)

    def chat(self, max_length: int = 0) -> "Chat":
        return Chat(self, max_length)

    def encode(self, text: bytes) -> list[int]:
        count = c_size_t(4 * len(text) + 16)
        ids = (c_int32 * count.value)()
        self.library.check(self.c.janus_encode(self.handle, c_char_p(text), ids, byref(count)))
        return list(ids[: count.value])

    def decode(self, ids: Sequence[int]) -> str:
        given, size = (c_int32 * len(ids))(*ids), c_size_t(0)
        self.library.check(self.c.janus_decode(self.handle, given, c_size_t(len(ids)), None, byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self.library.check(self.c.janus_decode(self.handle, given, c_size_t(len(ids)), text, byref(size)))
        return text.value.decode()

    def preprocess(self, image: CImage, size: int) -> NDArray[np.float32]:
        pixels, count = np.empty((3, size, size), np.float32), c_size_t(3 * size * size)
        self.library.check(self.c.janus_preprocess(self.handle, byref(image), pixels.ctypes.data_as(POINTER(c_float)), byref(count)))
        assert count.value == pixels.size
        return pixels


class Chat:
    def __init__(self, model: Model, max_length: int) -> None:
        self.model, self.handle = model, c_void_p()
        model.library.check(model.c.janus_chat_open(model.handle, c_int32(max_length), byref(self.handle)))

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *_: object) -> None:
        self.model.c.janus_chat_close(self.handle)

    def say(self, text: str, images: Sequence[Any] = (), **settings: Any) -> Said:
        return _ask(self.model.library, self.model.c.janus_chat_say, self.handle, images, text, **settings)


class CancelToken:
    def __init__(self, library: Library) -> None:
        self._library, self.handle = library, c_void_p()
        library.check(library.c.janus_cancel_token_create(byref(self.handle)))

    def cancel(self) -> None:
        self._library.c.janus_cancel(self.handle)

    def __del__(self) -> None:
        self._library.c.janus_cancel_token_destroy(self.handle)


def _ask(
    library: Library,
    call: Any,
    handle: c_void_p,
    images: Sequence[Any],
    text: str | bytes,
    on_text: Callable[[str], Any] = lambda text: 1,
    **settings: Any,
) -> Said:
    options = AskOptions()
    library.c.janus_ask_options_init(byref(options), ctypes.sizeof(options))
    pointers = [image.pointer if isinstance(image, Image) else ctypes.pointer(image) for image in images]
    options.text, options.num_images = text if isinstance(text, bytes) else text.encode(), len(pointers)
    options.images = (POINTER(CImage) * len(pointers))(*pointers)
    for name, value in settings.items():
        setattr(options, name, value)
    said, ids = [], []

    def take(piece: Any, size: int, new: Any, count: int, _: Any) -> int:
        said.append(ctypes.string_at(piece, size).decode())
        ids.extend(new[:count])
        return int(on_text(said[-1]))

    options.on_text = ON_TEXT(take)
    answer = CAnswer(ctypes.sizeof(CAnswer))
    library.check(call(handle, byref(options), byref(answer)))
    assert answer.num_tokens == len(ids)
    timings = {name: getattr(answer, f"{name}_ms") for name in ("load", "encode", "prefill", "steps")}
    return Said("".join(said), ids, ("eos", "length")[answer.stop], timings)


def _picture(picture: CPicture) -> Picture:
    return Picture(
        picture.number,
        picture.prompt,
        picture.seed,
        np.ctypeslib.as_array(picture.rgb, (picture.height, picture.width, 3)).copy(),
        np.ctypeslib.as_array(picture.image_ids, (picture.num_image_ids,)).copy() if picture.image_ids else None,
        np.ctypeslib.as_array(picture.latents, (picture.num_latents,)).copy() if picture.latents else None,
        {name: getattr(picture, f"{name}_ms") for name in ("load", "encode", "prefill", "steps", "decode")},
    )
