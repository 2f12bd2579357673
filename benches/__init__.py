"""The benchmarks: this library beside two peers and beside raw floors, on one database, in one run.

`python -m benches` measures, audits every figure by SQL, and writes `benches/results/*.json`, the table
`docs/reference/benchmarks.md` and its plots. `python -m benches --quick` does it in about a minute and writes nothing.
One contender alone, for profiling: `python -m benches.ours --steps 3 --in-flight 256 --sagas 3000 --profile FILE`.

A figure is steps per second of durable work: every contender commits each step's result before the next step starts.
Contenders live in processes of their own (one of the peers has the same package name as this library) and take turns
on one PostgreSQL with fsync on, round after round. A figure is the median of the rounds; a ratio is the median of the
rounds' ratios, for a machine may be twice as fast in one minute as in the next. Nobody uses uvloop; everybody sets
aside what was imported (`gc.freeze`).
"""
