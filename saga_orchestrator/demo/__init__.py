"""The main job on real input: a shop's orders, each a saga across four participants, with a worker killed half way.

The shop takes orders from a CSV file. Each becomes a saga: reserve the stock, charge the card, confirm the order (the
pivot), book a courier, notify the customer. Warehouse, bank, courier and mailer keep their own tables and commit their
own transactions; they know nothing of sagas. Here they share the saga's database for convenience, never a transaction.

What goes wrong is in the data, as with a payment provider's test cards: some cards decline, some goods run out, some
charges are made but never answered, some cities' courier is down at first. Worker processes drive the sagas, and one of
them is killed with SIGKILL when half the orders are finished.

At the end an audit reads the participants' tables, not the saga rows, and asks what an accountant would: is the money
where the goods went, and is every order either wholly delivered or wholly undone? A claim of a saga is checked against
that, never taken for it.

    orders          what is ordered, and what is on the shelf: the files beside this one
    tables          the participants' tables
    books           how a participant reads and writes its tables
    participants/   what each participant does, once per key
    steps, saga     the saga: what an application would write
    worker, crew    the processes that drive it, and their parent's grip on them
    run, progress   the run: place orders, watch, kill, wait
    audit, claims   what the tables say, and whether the sagas say the same
    timeline        one history of each kind
"""
