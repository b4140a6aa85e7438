"""In: a request in OpenAI's form. Out: what it asks for, checked; answers in that form."""
