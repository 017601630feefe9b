/* janus: draws pictures and answers questions with a Janus bundle. A flat C interface; janus.hpp is a C++17 face over it.
 *
 * Errors.     Functions that can fail return a janus_status, JANUS_OK where they did what they were asked. janus_message() says in one line
 *             what was got, what was expected and what to do. Nothing is printed, nothing aborts, no exception comes out.
 * Structs.    Every struct begins with struct_size, which its janus_..._init() sets or, where there is none, the caller: sizeof the struct.
 *             A library that is newer than the program reads and writes no more than that.
 * Ownership.  What a caller passes in is only read, and only during the call. What a callback gets lives until it returns. Handles
 *             live until they are closed, which is done once and not from a callback of theirs; strings of janus_info as long as their
 *             model. janus_image_free takes what janus_image_read and janus_image_decode gave, nothing else.
 * Threads.    A model may be used by any number of threads at once: each call has a cache of its own, and all share the weights and the
 *             cores. A chat belongs to one thread at a time. janus_cancel may be called from any thread, and from a signal handler.
 *             Close a handle when no call uses it any more.
 * Text        is UTF-8 and ends with a zero byte.
 */
#ifndef JANUS_JANUS_H
#define JANUS_JANUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(JANUS_BUILDING)
#define JANUS_API __attribute__((visibility("default")))
#else
#define JANUS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define JANUS_VERSION "0.1.0"
/* Raised whenever a program that was built with an older header would break. The library's SONAME carries it. */
#define JANUS_ABI_VERSION 1

typedef int32_t janus_status;
enum {
    JANUS_OK = 0,
    JANUS_ERROR = 1,   /* what has no status of its own */
    JANUS_VALUE = 2,   /* an argument is outside its range */
    JANUS_BUNDLE = 3,  /* a bundle is missing, altered, truncated or of another format */
    JANUS_BACKEND = 4, /* ONNX Runtime is missing, or cannot run this bundle */
    JANUS_OUT_OF_MEMORY = 5,
    JANUS_PROMPT = 6,            /* text that the model cannot take: too long, empty, not UTF-8, or with reserved tokens */
    JANUS_CONVERSATION_FULL = 7, /* no room for the next turn */
    JANUS_IMAGE = 8,             /* a file that is no picture, or a picture that cannot be used */
    JANUS_NUMERICAL = 9,         /* NaN or infinity came out of a graph */
    JANUS_CANCELLED = 10         /* by janus_cancel or by a callback */
};

typedef struct janus_model janus_model;
typedef struct janus_chat janus_chat;
typedef struct janus_cancel_token janus_cancel_token;

/* --- library --- */

/* "0.1.0", of the library that runs, which may be newer than this header. */
JANUS_API const char *janus_version(void);
JANUS_API uint32_t janus_abi_version(void);
/* A status as a word that never changes, "prompt" for JANUS_PROMPT: the `code` of Python's errors. "unknown" for other numbers. */
JANUS_API const char *janus_status_name(janus_status status);
/* About the last call of this thread that failed; valid until this thread calls again. Never null. */
JANUS_API const char *janus_message(void);

/* --- a model --- */

typedef struct janus_open_options {
    size_t struct_size;
    /* The folder of a bundle. */
    const char *bundle;
    /* The shared library of ONNX Runtime, 1.20 or newer (1.31 for bundles with an int8 cache). Null: what the environment variable
     * JANUS_ONNXRUNTIME names, else one that lies beside this library or in a Python package beside it, else libonnxruntime.so.1 as the
     * system's loader finds it. It is opened with RTLD_LOCAL, so that another one may be in the process, and is never unloaded. */
    const char *onnxruntime;
    /* Threads of one graph's run, at most 1024; 0: as many as there are cores. */
    int32_t num_threads;
    /* ONNX Runtime's own builds report usage unless ORT_DISABLE_TELEMETRY is 1 in the environment when they are loaded; no call of theirs
     * is early enough. 1: janus_open sets it, unless it is set, with setenv, which is unsafe while other threads use the environment. 0,
     * the default: the environment is the host's. */
    int32_t disable_telemetry;
} janus_open_options;

JANUS_API void janus_open_options_init(janus_open_options *options, size_t struct_size);
/* Checks the bundle and opens it; graphs are read when they are first used, which takes seconds for large models. */
JANUS_API janus_status janus_open(const janus_open_options *options, janus_model **model);
/* Null is allowed, here and in every function that closes or frees. */
JANUS_API void janus_close(janus_model *model);

typedef struct janus_info {
    size_t struct_size;
    const char *name;
    const char *family;     /* janus, janus-pro or janus-flow */
    const char *precision;  /* as the exporter was asked: fp32, fp16, int8 or int4 */
    const char *backend;    /* "ONNX Runtime 1.32.0 on the CPU" */
    int32_t generates;      /* 1 if janus_generate can be called */
    int32_t understands;    /* 1 if janus_describe and chats can be called */
    int32_t random_weights; /* 1: a model made for tests, whose pictures mean nothing */
    int32_t picture_size;   /* a drawn picture's width and height */
    int32_t num_image_ids;  /* ids of a drawn picture; 0 for JanusFlow, which draws latents */
    int32_t max_length;     /* tokens of prompt and answer together */
    int32_t steps;          /* JanusFlow's by default, with Euler's solver; 0 for other models */
    int32_t max_tokens;     /* of an answer, by default */
    double cfg_weight;      /* by default */
    double temperature;     /* by default */
    int32_t ab2_steps;      /* JanusFlow's by default with JANUS_SOLVER_AB2, 0 for other models */
    double ab2_shift;       /* how much that solver's times crowd at the noise, and Euler's; 1: evenly spaced */
    double euler_shift;
} janus_info;

/* Fills in what `info->struct_size` has room for. */
JANUS_API janus_status janus_model_info(const janus_model *model, janus_info *info);

/* --- cancelling --- */

JANUS_API janus_status janus_cancel_token_create(janus_cancel_token **token);
/* Calls that were given the token end with JANUS_CANCELLED at their next step, within one of JanusFlow's, which take seconds; those that
 * begin later at once. For good: a token cannot be reset. */
JANUS_API void janus_cancel(janus_cancel_token *token);
JANUS_API void janus_cancel_token_destroy(janus_cancel_token *token);

/* --- pictures in --- */

/* A picture of 8-bit RGB, upright. */
typedef struct janus_image {
    size_t struct_size;
    uint32_t width;
    uint32_t height;
    size_t stride; /* bytes from a line to the next; 0: 3 * width */
    const uint8_t *rgb;
} janus_image;

/* Reads a PNG, JPEG or WebP file of any mode, as the Python runtime does: turned upright as its EXIF says (unless `keep_orientation`),
 * the alpha channel dropped. Free with janus_image_free. JANUS_BACKEND where the library was built without readers. */
JANUS_API janus_status janus_image_read(const char *path, int32_t keep_orientation, janus_image **image);
/* The same of a file in memory; `name` is what messages call it, or null. */
JANUS_API janus_status janus_image_decode(const void *data, size_t size, const char *name, int32_t keep_orientation, janus_image **image);
JANUS_API void janus_image_free(janus_image *image);

/* --- drawing --- */

typedef struct janus_picture {
    size_t struct_size;
    size_t number; /* picture i of prompt p is number p * n + i */
    size_t prompt; /* index of its prompt */
    uint64_t seed; /* which draws this picture alone */
    uint32_t width;
    uint32_t height;
    const uint8_t *rgb;       /* [height, width, 3] */
    const int32_t *image_ids; /* null for JanusFlow */
    size_t num_image_ids;
    const float *latents; /* JanusFlow's [channels, size, size], else null */
    size_t num_latents;
    double load_ms;    /* opening graphs, once */
    double encode_ms;  /* a reference picture, once */
    double prefill_ms; /* its batch's prompts, to the first step's end */
    double steps_ms;   /* the steps after it */
    double decode_ms;  /* to pixels */
} janus_picture;

/* Return 0 to stop: the call ends with JANUS_CANCELLED. */
typedef int (*janus_on_step)(size_t step, size_t total, void *user);
typedef int (*janus_on_picture)(const janus_picture *picture, void *user);

/* How JanusFlow's flow is integrated: Euler's steps, as published, or Adams and Bashforth's of two velocities, which needs fewer. */
typedef int32_t janus_solver;
enum { JANUS_SOLVER_DEFAULT = 0, JANUS_SOLVER_EULER = 1, JANUS_SOLVER_AB2 = 2 };

typedef struct janus_generate_options {
    size_t struct_size;
    const char *const *prompts;
    size_t num_prompts;
    size_t n;                         /* pictures of each prompt; 1 */
    uint64_t seed;                    /* picture i of a prompt draws with seed + i; 0 */
    size_t batch_size;                /* pictures drawn at once: more is faster in all and takes more memory; 8 */
    double cfg_weight;                /* strength of guidance, -1000 to 1000; NaN: the model's */
    double temperature;               /* 0 is greedy, else 0.0001 to 1000000; NaN: the model's */
    uint64_t top_k;                   /* keep the k most likely ids; 0 keeps all */
    double top_p;                     /* keep the most likely ids that reach this probability together; 1 keeps all */
    int32_t steps;                    /* JanusFlow's; 0: the model's for the solver */
    const janus_image *image;         /* a picture that the prompts speak of, for checkpoints trained for it; null */
    double image_weight;              /* of its visual features beside its ids; NaN: 5. Not for JanusFlow */
    const janus_cancel_token *cancel; /* may be null */
    janus_on_step on_step;            /* after every step of a batch, of `total` steps of all batches; may be null */
    janus_on_picture on_picture;      /* each picture, in order, as soon as it is drawn */
    void *user;                       /* is passed to both */
    janus_solver solver;              /* JanusFlow's; 0: Euler's */
} janus_generate_options;

JANUS_API void janus_generate_options_init(janus_generate_options *options, size_t struct_size);
JANUS_API janus_status janus_generate(janus_model *model, const janus_generate_options *options);

/* A PNG of a picture with texts that any program can read, such as its prompt and seed: `keys` and `values` are `num_texts` strings, which
 * may be null if that is 0. The file is whole or absent; one that exists is not replaced: JANUS_ERROR. JANUS_BACKEND where the library was
 * built without readers. */
JANUS_API janus_status janus_image_write_png(const janus_image *image, const char *path, const char *const *keys, const char *const *values,
                                             size_t num_texts);
/* Gets the file's bytes, once. Return 0 to say that they could not be taken: the call ends with JANUS_CANCELLED. */
typedef int (*janus_on_bytes)(const void *data, size_t size, void *user);
JANUS_API janus_status janus_image_encode_png(const janus_image *image, const char *const *keys, const char *const *values,
                                              size_t num_texts, janus_on_bytes on_bytes, void *user);

/* --- answering --- */

enum { JANUS_STOP_EOS = 0, JANUS_STOP_LENGTH = 1 };

typedef struct janus_answer {
    size_t struct_size;
    int32_t stop; /* the model ended it, or the limit did */
    size_t num_tokens;
    double load_ms;
    double encode_ms;  /* pictures */
    double prefill_ms; /* the prompt, to the first token */
    double steps_ms;   /* the tokens after it */
} janus_answer;

/* A piece of the answer, the first one usually with a space before it: whole characters, zero-terminated, and the ids that it came from.
 * Return 0 to stop. */
typedef int (*janus_on_text)(const char *text, size_t num_bytes, const int32_t *ids, size_t num_ids, void *user);

typedef struct janus_ask_options {
    size_t struct_size;
    const char *text;                 /* the question */
    const janus_image *const *images; /* may be null if there are none */
    size_t num_images;
    int32_t max_tokens;               /* longest answer; 0: the model's */
    double temperature;               /* 0 is greedy, the default */
    uint64_t top_k;                   /* 0 */
    double top_p;                     /* 1 */
    uint64_t seed;                    /* 0 */
    const janus_cancel_token *cancel; /* may be null */
    janus_on_text on_text;            /* may be null */
    void *user;
} janus_ask_options;

JANUS_API void janus_ask_options_init(janus_ask_options *options, size_t struct_size);
/* One question about one or several pictures. `answer` may be null, and is filled in with JANUS_OK only. */
JANUS_API janus_status janus_describe(janus_model *model, const janus_ask_options *options, janus_answer *answer);

/* A conversation, which keeps its cache between turns: room for `max_length` tokens, 0 for the model's limit. It may outlive its model. */
JANUS_API janus_status janus_chat_open(janus_model *model, int32_t max_length, janus_chat **chat);
/* One turn, with pictures or without. After an error the conversation can go on. A turn that gave no token has cost it nothing; of an
 * answer that was stopped, what was drawn until then stays in it. JANUS_VALUE while the chat is answering already. */
JANUS_API janus_status janus_chat_say(janus_chat *chat, const janus_ask_options *options, janus_answer *answer);
JANUS_API void janus_chat_close(janus_chat *chat);

/* --- parts --- */

/* Text, special tokens spelled out, to ids; nothing is added. Writes as many as `*count` has room for, and sets it to how many there are.
 */
JANUS_API janus_status janus_encode(const janus_model *model, const char *text, int32_t *ids, size_t *count);
/* Ids to text without special tokens and its zero byte. Writes if `*size` bytes have room for all, and sets it to how many are needed. */
JANUS_API janus_status janus_decode(const janus_model *model, const int32_t *ids, size_t count, char *text, size_t *size);
/* What the vision encoder gets of a picture, [3, size, size]. Writes if `*count` floats have room for all, and sets it to how many. */
JANUS_API janus_status janus_preprocess(const janus_model *model, const janus_image *image, float *pixels, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
