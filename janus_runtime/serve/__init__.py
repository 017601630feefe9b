"""An OpenAI-style HTTP server over one `Janus`. Needs the packages of the extra `serve`; nothing else of the runtime imports it.

A request's way: `journal` (its id, its log line) -> `gate` (who may ask) -> `body` (limits) -> a route of `images` or `chat` ->
`work` (the model's events on the event loop) -> the answer, whole or as `event_stream`. The `model` is one of this process, or, in the
folder `ray`, those of others.
"""
