"""The C interface as a stranger uses it: wrong arguments, other versions of the structs, bad bundles, other libraries."""

import ctypes
import json
import re
import shutil
import subprocess
from ctypes import byref, c_char_p, c_int32, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest

import janus_runtime
from janus_runtime.bundle.bundle import NANO
from janus_runtime.errors import JanusError
from testing.c_library import CAnswer, CError, CPicture, GenerateOptions, Info, Model, OpenOptions, c_image
from tests.runtime.bundle.bad_manifests import PATHS_OUT, WRONG_FIELDS, WRONG_FLOW_FIELDS, changed
from tests.runtime.bundle.hub_cache import make_hub_cache

HEADER = Path(__file__).parents[2] / "cpp" / "include" / "janus" / "janus.h"


def test_at_most_thirty_functions_and_nothing_else_is_exported(build):
    declared = set(re.findall(r"^JANUS_API [\w ]*?\*?(janus_\w+)\(", HEADER.read_text(), re.MULTILINE))
    listed = subprocess.run(["nm", "-D", "--defined-only", build / "libjanus.so"], capture_output=True, text=True, check=True).stdout
    exported = {line.split()[-1].partition("@")[0] for line in listed.splitlines()} - {"JANUS_1"}
    assert exported == declared and len(declared) <= 30


def test_versions_and_names(library):
    assert library.c.janus_version().decode() == janus_runtime.__version__
    assert library.c.janus_abi_version() == 1
    names = [library.c.janus_status_name(status).decode() for status in range(11)]
    assert {error.code for error in JanusError.__subclasses__()} - {"deadline", "busy", "replica_lost"} <= set(names)
    assert library.c.janus_status_name(-1) == library.c.janus_status_name(99) == b"unknown"


def test_info(nano):
    model, janus = nano
    info, manifest = model.info(), janus.manifest
    assert (info.name.decode(), info.family.decode(), info.precision.decode()) == (manifest.name, manifest.family, manifest.precision)
    assert info.backend.decode() == janus.backend_description
    assert (info.generates, info.understands, info.steps) == (1, 1, 0)
    assert (info.picture_size, info.num_image_ids) == (manifest.image_output.size, manifest.image_output.num_tokens)
    assert (info.cfg_weight, info.temperature) == (manifest.defaults.cfg_weight, manifest.defaults.temperature)


def test_null_is_refused_and_closing_it_is_not(library):
    c = library.c
    for call in (
        lambda: c.janus_open(None, byref(c_void_p())),
        lambda: c.janus_open(byref(OpenOptions(ctypes.sizeof(OpenOptions))), None),
        lambda: c.janus_open(byref(OpenOptions(ctypes.sizeof(OpenOptions))), byref(c_void_p())),
        lambda: c.janus_generate(None, None),
        lambda: c.janus_describe(None, None, None),
        lambda: c.janus_chat_open(None, 0, byref(c_void_p())),
        lambda: c.janus_model_info(None, None),
        lambda: c.janus_encode(None, b"a", None, byref(c_size_t())),
        lambda: c.janus_cancel_token_create(None),
    ):
        with pytest.raises(CError, match="is null; expected") as raised:
            library.check(call())
        assert raised.value.code == "value"
    for name in ("close", "chat_close", "cancel", "cancel_token_destroy", "image_free"):
        getattr(c, f"janus_{name}")(None)


@pytest.mark.parametrize("size", [0, 7, 12, 1 << 20])
def test_a_struct_without_its_size(nano, library, size):
    model, _ = nano
    options = GenerateOptions()
    library.c.janus_generate_options_init(byref(options), ctypes.sizeof(options))
    options.struct_size = size
    with pytest.raises(CError, match=f"struct_size of janus_generate_options is {size}; expected sizeof"):
        library.check(library.c.janus_generate(model.handle, byref(options)))


def test_a_program_of_an_older_version_is_not_written_beyond_its_structs(nano, library):
    """What a smaller struct lacks has its default."""
    model, _ = nano
    info = Info(Info.steps.offset)
    info.steps, info.cfg_weight = -1, -1.0
    library.check(library.c.janus_model_info(model.handle, byref(info)))
    assert info.num_image_ids > 0 and (info.steps, info.cfg_weight) == (-1, -1.0)

    options = GenerateOptions()
    options.on_picture = type(options.on_picture)()
    options.steps = 12345
    library.c.janus_generate_options_init(byref(options), GenerateOptions.steps.offset)
    assert options.struct_size == GenerateOptions.steps.offset and options.n == 1 and options.steps == 12345


def test_structs_are_laid_out_as_the_header_says(build, tmp_path):
    """Sizes and last offsets of this binding's structs, by a C compiler."""
    structs = {"janus_info": Info, "janus_picture": CPicture, "janus_generate_options": GenerateOptions, "janus_answer": CAnswer}
    lines = [f'printf("%zu\\n", sizeof({name}));' for name in structs]
    lines += [f'printf("%zu\\n", offsetof({name}, {struct._fields_[-2][0]}));' for name, struct in structs.items()]
    source = tmp_path / "sizes.c"
    source.write_text("#include <janus/janus.h>\n#include <stdio.h>\nint main(void) {" + "".join(lines) + "return 0;}")
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{HEADER.parents[1]}", source, "-o", tmp_path / "sizes"],
        check=True,
    )
    printed = [int(line) for line in subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.split()]
    assert printed == [*map(ctypes.sizeof, structs.values()), *(getattr(each, each._fields_[-2][0]).offset for each in structs.values())]


def test_ids_and_text_of_a_buffer_that_is_too_small(nano, library):
    model, janus = nano
    count, ids = c_size_t(2), (c_int32 * 2)(-1, -1)
    library.check(library.c.janus_encode(model.handle, c_char_p(b"a red circle"), ids, byref(count)))
    assert count.value == len(janus._prompter.encode("a red circle")) > 2 and list(ids) == [-1, -1]


def test_pictures_whose_lines_lie_apart(nano):
    model, _ = nano
    pixels = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
    size = model.info().picture_size
    part = pixels[5:30, :20]
    assert np.array_equal(model.preprocess(c_image(part), size), model.preprocess(c_image(np.ascontiguousarray(part)), size))


@pytest.mark.parametrize(
    ("width", "height", "stride", "message"),
    [(0, 4, 0, "is empty"), (4, 4, 11, "stride is 11"), (100_000, 1000, 0, "more than 80,000,000")],
)
def test_pictures_that_are_none(nano, width, height, stride, message):
    model, _ = nano
    image = c_image(np.zeros((4, 4, 3), np.uint8))
    image.width, image.height, image.stride = width, height, stride
    with pytest.raises(CError, match=message):
        model.preprocess(image, 64)


class TestBadBundles:
    """Python's sentence and code."""

    @pytest.fixture
    def refused(self, library, onnxruntime_library):
        def refuse(path):
            with pytest.raises(JanusError) as theirs:
                janus_runtime.load(path, "cpu").close()
            with pytest.raises(CError) as ours:
                Model(library, path, onnxruntime_library)
            assert ours.value.code == theirs.value.code
            return str(ours.value), str(theirs.value)

        return refuse

    @pytest.fixture
    def copy(self, tiny, tmp_path):
        return shutil.copytree(tiny, tmp_path / "copy", copy_function=shutil.copyfile)

    @pytest.mark.parametrize(("path", "value", "message"), WRONG_FIELDS)
    def test_a_field_that_is_wrong(self, copy, refused, path, value, message):
        raw = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(changed(raw, path, value)))
        ours, theirs = refused(copy)
        if value != value:  # NaN is no JSON, though Python reads it.
            assert "is not JSON" in ours
        else:
            assert ours == theirs

    @pytest.mark.parametrize(("path", "value", "message"), WRONG_FLOW_FIELDS)
    def test_a_field_of_a_flow_that_is_wrong(self, bundles, tmp_path, refused, path, value, message):
        copy = shutil.copytree(bundles("tiny-flow"), tmp_path / "copy", copy_function=shutil.copyfile)
        raw = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(changed(raw, path, value)))
        ours, theirs = refused(copy)
        assert ours == theirs

    @pytest.mark.parametrize("name", PATHS_OUT)
    def test_paths_out_of_the_bundle(self, copy, refused, name):
        raw = json.loads((copy / "manifest.json").read_text())
        raw["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        (copy / "manifest.json").write_text(json.dumps(raw))
        ours, theirs = refused(copy)
        assert ours == theirs

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": 7}', '{"format": 7, "format": "x"}', "null"])
    def test_other_json(self, copy, refused, text):
        (copy / "manifest.json").write_text(text)
        ours, theirs = refused(copy)
        assert ours == theirs or ("is not JSON" in ours and "is not JSON" in theirs)

    def test_files(self, copy, refused, tmp_path):
        for path in (tmp_path / "absent", tmp_path, copy / "manifest.json"):
            ours, theirs = refused(path)
            assert ours == theirs
        (copy / "manifest.json").write_bytes(b"\xff\xfe")
        assert "is not UTF-8 text" in refused(copy)[0]

    def test_a_file_that_is_missing_truncated_or_a_link(self, copy, refused, tmp_path):
        weights, outside = copy / "weights.data", tmp_path / "outside"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-7])
        ours, theirs = refused(copy)
        assert ours == theirs
        weights.unlink()
        ours, theirs = refused(copy)
        assert ours == theirs
        outside.write_bytes(whole)
        weights.symlink_to(outside)
        ours, theirs = refused(copy)
        assert ours == theirs

    @pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": {}}'])
    def test_a_tokenizer_that_is_none(self, copy, refused, text):
        raw = json.loads((copy / "manifest.json").read_text())
        raw["files"]["tokenizer.json"]["bytes"] = len(text)
        (copy / "manifest.json").write_text(json.dumps(raw))
        (copy / "tokenizer.json").write_text(text)
        ours, _ = refused(copy)
        assert ours.startswith(f"{copy.resolve() / 'tokenizer.json'} is not a tokenizer: ")

    def test_another_id_of_a_token(self, copy, refused):
        raw = json.loads((copy / "manifest.json").read_text())
        raw["tokens"]["eos"]["id"] += 1
        (copy / "manifest.json").write_text(json.dumps(raw))
        ours, theirs = refused(copy)
        assert ours == theirs

    def test_a_graph_that_is_no_graph(self, copy, library, onnxruntime_library):
        size = (copy / "text_embed.onnx").stat().st_size
        (copy / "text_embed.onnx").write_bytes(b"x" * size)
        with (
            Model(library, copy, onnxruntime_library) as model,
            pytest.raises(CError, match="text_embed.onnx cannot be opened: .*janus-rt verify"),
        ):
            model.generate("a cat")

    def test_a_bundle_that_is_replaced_while_it_is_open(self, copy, library, onnxruntime_library):
        with Model(library, copy, onnxruntime_library) as model:
            before = model.generate("a cat")[0].image_ids
            (copy / "manifest.json").write_bytes((copy / "manifest.json").read_bytes())
            with pytest.raises(CError, match="was replaced or altered while the bundle was open; load it again"):
                model.describe([c_image(np.zeros((8, 8, 3), np.uint8))], "why")
            assert np.array_equal(model.generate("a cat")[0].image_ids, before)

    def test_a_bundle_in_a_hub_cache(self, tiny, tmp_path, library, onnxruntime_library):
        snapshot = make_hub_cache(tiny, tmp_path)
        with Model(library, snapshot, onnxruntime_library) as model:
            assert model.generate("a cat")[0].image_ids.size


def test_a_library_that_is_not_onnxruntime(library, build, tmp_path):
    with pytest.raises(CError, match="ONNX Runtime cannot be opened .*JANUS_ONNXRUNTIME") as raised:
        Model(library, NANO, tmp_path / "absent.so")
    assert raised.value.code == "backend"
    with pytest.raises(CError, match="is not ONNX Runtime: it has no OrtGetApiBase"):
        Model(library, NANO, build / "libjanus.so")


def test_beside_another_onnxruntime(nano, library, onnxruntime_library, tmp_path):
    """Python's and a copy of it under another name are two libraries to the loader."""
    other = shutil.copyfile(onnxruntime_library, tmp_path / "other.so")
    model, janus = nano
    with Model(library, NANO, other) as second:
        expected = janus.generate("a red circle")[0].image_ids
        assert np.array_equal(second.generate("a red circle")[0].image_ids, expected)
        assert np.array_equal(model.generate("a red circle")[0].image_ids, expected)
