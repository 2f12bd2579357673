"""Where sagas live: the tables, the store that moves their rows, and the group commit that makes it fast.

SQLAlchemy begins here; asyncio is used, event loops are not owned. The kernel decides, the store only writes what was
decided, and refuses it when the row is no longer the one that was decided upon.
"""
