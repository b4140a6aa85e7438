"""In: a model or several, what is cached, and the next tokens. Out: logits, and tokens drawn from
them; a device's fast ways to both have a room of their own."""
