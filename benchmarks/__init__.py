"""What the server does in a second and what that costs: programs to run, not a part of what is installed."""

import warnings

warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")  # the wheel of PostgreSQL asks for a folder that it does not use
