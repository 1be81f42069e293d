"""What every test relies on: schedules are the default ones, whatever was tuned on this machine."""

import os

os.environ["TINYFLOW_TUNING_LOG"] = ""
