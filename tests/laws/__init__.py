"""The laws of the kernel, held against random sagas in hostile worlds.

`tape`       every chance that a world takes, as one string of bytes: nothing else decides, so a failure is repeatable
`dags`       a random saga, of every shape and kind that the builder would let through
`ledger`     the world outside: which effects stand, whatever the saga believes
`world`      one saga's life: who owns it, what is in flight, and the laws after every decision
`happenings` what goes well and what goes wrong, in any order
`editions`   the kernel itself, or a copy of it with a planted bug
`mutants`    the planted bugs; each must be noticed by a world
"""
