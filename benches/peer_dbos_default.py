"""The peer DBOS 3.4 as it comes."""

from __future__ import annotations

from .contender import main
from .peer_dbos import Dbos

if __name__ == "__main__":
    main(lambda: Dbos(threads=None))
