/* Draws one picture into a PPM file: cc draw.c $(pkg-config --cflags --libs janus) -o draw && ./draw engines/janus-nano "a red circle"
 * out.ppm */
#include <janus/janus.h>
#include <stdio.h>

static int save(const janus_picture *picture, void *path) {
    FILE *file = fopen(path, "wb");
    if (!file) return 0;
    fprintf(file, "P6 %u %u 255\n", (unsigned)picture->width, (unsigned)picture->height);
    fwrite(picture->rgb, 3, (size_t)picture->width * picture->height, file);
    return fclose(file) == 0;
}

static int fail(void) {
    fprintf(stderr, "%s\n", janus_message());
    return 1;
}

int main(int count, char **words) {
    if (count != 4) return fprintf(stderr, "usage: draw BUNDLE PROMPT FILE.ppm\n"), 2;

    janus_open_options open;
    janus_open_options_init(&open, sizeof open);
    open.bundle = words[1];
    open.disable_telemetry = 1;
    janus_model *model;
    if (janus_open(&open, &model) != JANUS_OK) return fail();

    const char *prompts[] = {words[2]};
    janus_generate_options options;
    janus_generate_options_init(&options, sizeof options);
    options.prompts = prompts;
    options.num_prompts = 1;
    options.seed = 7;
    options.on_picture = save;
    options.user = words[3];
    const int result = janus_generate(model, &options) == JANUS_OK ? 0 : fail();
    janus_close(model);
    return result;
}
