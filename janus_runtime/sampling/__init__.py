"""From logits to ids: pure functions of logits and noise."""
