#include <unistd.h>

#include <chrono>
#include <iostream>

#include "command.h"
#include "drawing.h"
#include "picture_folder.h"
#include "python_repr.h"

namespace cli {
namespace {

const std::vector<Option> &options() {
    static const std::vector<Option> all = with_common({
        {"--n", "N", "Pictures of each prompt; default: 4.", "-n"},
        {"--cfg-weight", "W", "Strength of guidance; 1 is none; default: the model's, 5, JanusFlow 2."},
        {"--solver", "S", "How the flow is integrated: euler, as published, or ab2, in fewer steps; JanusFlow only; default: euler."},
        {"--steps", "N", "Steps of the flow; JanusFlow only; default: the model's for the solver: euler 30, ab2 15."},
        {"--image", "PATH", "Reference picture for the prompts; only for checkpoints trained for it, such as Janus-4o."},
        {"--exif-orientation", "", "Turn it upright as its EXIF says; the default."},
        {"--no-exif-orientation", "", "Leave it as stored, as the original Janus does."},
        {"--image-weight", "W", "Weight of the reference picture's visual features relative to its ids; default: 5."},
        {"--batch-size", "N", "Pictures drawn at once: more is faster and takes more memory; default: 8."},
        {"--seed", "N", "The same seed gives the same result; result i uses seed + i; default: 0."},
        {"--temperature", "T", "Randomness of the draw; 0 is greedy; default: the model's, 1."},
        {"--top-k", "K", "Keep the K most likely ids; 0, the default, keeps all."},
        {"--top-p", "P", "Keep the most likely ids that reach this probability together; default: 1."},
        {"--out", "DIR", "Folder for pictures; made if absent; default: out."},
        {"--grid", "", "Also write all pictures of a prompt as one."},
        {"--upscale", "SIZE", "Scale pictures to SIZE x SIZE pixels (Lanczos)."},
        {"--timings", "", "Print how long each stage took."},
    });
    return all;
}

janus::Solver read_solver(const std::string &name) {
    if (name == "euler") return janus::Solver::euler;
    if (name == "ab2") return janus::Solver::ab2;
    throw UsageError("Invalid value for '--solver': '" + name + "' is not one of 'euler', 'ab2'.");
}

// A drawing's solver, by name and with the model's own settings where the caller has none.
struct FlowSettings {
    std::string solver;
    int steps;
    double shift;
};

FlowSettings describe_flow(const janus::Drawing &drawing, const janus::Info &info) {
    if (drawing.solver == janus::Solver::ab2) return {"ab2", drawing.steps.value_or(info.ab2_steps), info.ab2_shift};
    return {"euler", drawing.steps.value_or(info.steps), info.euler_shift};
}

janus::Drawing read_drawing(const Arguments &arguments) {
    janus::Drawing drawing;
    drawing.prompts = arguments.rest();
    drawing.n = arguments.whole("--n", 1, 1 << 20).value_or(4);
    drawing.batch_size = arguments.whole("--batch-size", 1, 1 << 20).value_or(8);
    drawing.cfg_weight = arguments.number("--cfg-weight", -1000, 1000);
    drawing.temperature = arguments.number("--temperature", 0, 1e308);
    drawing.image_weight = arguments.number("--image-weight", 0, 1000);
    if (const auto solver = arguments.text("--solver")) drawing.solver = read_solver(*solver);
    if (const auto steps = arguments.whole("--steps", 1, 10'000)) drawing.steps = static_cast<int>(*steps);
    read_sampling(arguments, drawing);
    return drawing;
}

// What a PNG says of how it was drawn, beside prompt and seed.
Texts describe_settings(const janus::Drawing &drawing, const janus::Info &info) {
    Texts texts{{"cfg_weight", janus::python_repr(drawing.cfg_weight.value_or(info.cfg_weight))}};
    if (info.steps) {
        const FlowSettings flow = describe_flow(drawing, info);
        texts.insert(texts.end(),
                     {{"solver", flow.solver}, {"steps", std::to_string(flow.steps)}, {"shift", janus::python_repr(flow.shift)}});
    } else {
        texts.emplace_back("temperature", janus::python_repr(drawing.temperature.value_or(info.temperature)));
        texts.emplace_back("top_k", std::to_string(drawing.top_k));
        texts.emplace_back("top_p", janus::python_repr(drawing.top_p));
    }
    if (drawing.image && !info.steps)
        texts.emplace_back("image_weight", janus::python_repr(drawing.image_weight.value_or(janus::IMAGE_WEIGHT)));
    texts.insert(texts.end(), {{"software", std::string("janus-rt-cpp ") + janus_version()},
                               {"model", info.name},
                               {"precision", info.precision},
                               {"backend", "cpu"}});
    return texts;
}

Json describe_timings(const janus::Picture &picture, size_t num_steps) {
    Json timings{{"load", picture.load_ms}};
    if (picture.encode_ms > 0) timings["encode"] = picture.encode_ms;
    timings["prefill"] = picture.prefill_ms;
    timings["steps"] = picture.steps_ms;
    timings["step"] = picture.steps_ms / static_cast<double>(std::max<size_t>(num_steps - 1, 1));
    timings["decode"] = picture.decode_ms;
    return timings;
}

} // namespace

int generate(const std::vector<std::string> &words) {
    const Arguments arguments(words, options());
    if (arguments.has("--help")) {
        std::cout << "Usage: janus-rt-cpp generate [OPTIONS] PROMPT...\n\nDraw pictures of each PROMPT into PNG files.\n\n"
                  << describe_options(options());
        return 0;
    }
    if (arguments.rest().empty()) throw UsageError("Missing argument 'PROMPT...'.");
    janus::Drawing drawing = read_drawing(arguments);
    const auto upscale = arguments.whole("--upscale", 1, 8192);
    janus::Model model = open_model(arguments);
    const janus::Info info = model.info();
    std::optional<janus::Image> image;
    if (const auto path = arguments.text("--image"))
        drawing.image = &image.emplace(janus::Image::read(*path, arguments.has("--no-exif-orientation")));
    PictureFolder folder(arguments.text("--out").value_or("out"));
    const bool quiet = arguments.has("--quiet"), as_json = arguments.has("--json"), shows_bar = !quiet && isatty(STDERR_FILENO);
    const Texts settings = describe_settings(drawing, info);
    const FlowSettings flow = describe_flow(drawing, info);
    const size_t num_steps = static_cast<size_t>(info.steps ? flow.steps : info.num_image_ids);

    std::vector<janus::Rgb> of_prompt;
    Json timings;
    const auto report = [&](const std::string &path, const janus::Picture &picture, bool is_grid) {
        if (shows_bar) std::cerr << "\r\x1b[K";
        if (!as_json) {
            std::cout << path << std::endl;
            return;
        }
        Json result{{"prompt", drawing.prompts[picture.prompt]}, {"seed", is_grid ? drawing.seed : picture.seed}, {"file", path}};
        if (is_grid) result["grid"] = drawing.n;
        if (info.steps) {
            result["solver"] = flow.solver;
            result["steps"] = flow.steps;
        }
        result["timings"] = timings;
        print_result(arguments, std::move(result));
    };
    const auto start = std::chrono::steady_clock::now();
    size_t count = 0;
    const auto on_picture = [&](const janus::Picture &picture) {
        ++count;
        timings = describe_timings(picture, num_steps);
        janus::Rgb rgb{picture.width, picture.height,
                       std::vector<uint8_t>(picture.rgb, picture.rgb + size_t{3} * picture.width * picture.height)};
        if (upscale) rgb = janus::resize(rgb, static_cast<uint32_t>(*upscale), static_cast<uint32_t>(*upscale), janus::Filter::lanczos);
        const std::string slug = make_slug(drawing.prompts[picture.prompt]);
        const auto describe = [&](uint64_t seed) {
            Texts texts{{"prompt", drawing.prompts[picture.prompt]}, {"seed", std::to_string(seed)}};
            texts.insert(texts.end(), settings.begin(), settings.end());
            return texts;
        };
        report(folder.write(rgb, slug + "-seed" + std::to_string(picture.seed), describe(picture.seed)), picture, false);
        if (!arguments.has("--grid")) return;
        of_prompt.push_back(std::move(rgb));
        if (of_prompt.size() < drawing.n) return;
        report(folder.write(make_grid(of_prompt), slug + "-seed" + std::to_string(drawing.seed) + "-grid", describe(drawing.seed)), picture,
               true);
        of_prompt.clear();
    };
    model.generate(drawing, on_picture, [&](size_t step, size_t total) {
        if (shows_bar) std::cerr << "\rdrawing " << step << "/" << total << "\x1b[K" << std::flush;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (shows_bar) std::cerr << "\r\x1b[K";
    if (!quiet) {
        note(std::to_string(count) + (count == 1 ? " picture in " : " pictures in ") + format("%.1f", seconds) + " s, " +
             format("%.1f", timings["step"].get<double>()) + " ms a step");
    }
    if (arguments.has("--timings")) {
        for (const auto &[stage, spent] : timings.items())
            note((stage + std::string(8, ' ')).substr(0, 8) + format("%10.1f", spent.get<double>()) + " ms");
    }
    return 0;
}

} // namespace cli
