"""From a text, a machine and a time to params.yaml, by laws that were fitted to many runs.

In: the corpus, and how quickly this machine trains. Out: values of params.yaml, and what they give.
"""
