"""What a saga *is*: its steps, their order, and how each is retried and undone.

A definition is written once, at start-up, and is frozen. It knows nothing of databases, event loops or running sagas.
`graph` and `retry` are plain values of the standard library: they are all that the kernel sees.
"""
