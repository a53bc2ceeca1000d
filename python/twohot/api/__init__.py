"""What programs call to train an agent and to look at a run; `twohot.train` and `twohot.Run` are these."""

import os

from twohot.extras import TRAIN, require

require(*TRAIN)
# As in `cli/main.py`, which says why; of no effect where torch has been imported before.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
