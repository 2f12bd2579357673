"""The whole engine in a world of faults that a seed decides: crashes, zombies, lost answers, failing steps, operators.

Three simulated machines share one store in memory. Each has an orchestrator, a worker, callers who start sagas and
operators who give orders; each may be killed or frozen at every commit and at every `await` inside a step. The steps
act on participants outside, whose ledger, and not the saga rows, says at the end what really happened.

    python -m tests.simulation --seeds 1000         one line per failing seed, and how to replay it
    python -m tests.simulation --seed 7 --verbose   one run, with its whole trace

==================  ====================================================================================================
`plan`              which faults happen how often: all drawn from the seed, most of them absent (swarm testing)
`sagas`             random definitions: sequences, branches, pivots, probes, confirms, families, every policy
`participants`      the steps, and the services that they act on
`moods`             how a call of a service can go
`ledger`            what really happened, by idempotency key, and who was doing what at the same time
`ailments`          what a database raises that is up, and not well
`states`            the states that rows hold
`database`          the shared store, which checks the kernel's laws after each write, and each machine's bad line to it
`machine`           one simulated process
`people`            callers and operators, who also have sagas go back, and decide what is final
`world`             one run, from the first start to the last audit
`audit`             what must be true at the end
`mutants`           planted bugs that the simulation must find, or it proves nothing
==================  ====================================================================================================
"""
