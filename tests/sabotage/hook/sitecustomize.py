"""Apply the sabotage that the environment names, before anything of the program is imported.

Python imports this module when it starts with this folder on PYTHONPATH, so the tests' own process and
the processes that tests start with its environment are sabotaged alike.
"""

import os
import traceback

if name := os.environ.get("PROVISIONER_SABOTAGE"):
    try:
        from sabotage.table import SABOTAGES

        SABOTAGES[name].apply()
    except BaseException:  # noqa: BLE001  # Python reports an error of this module and runs on without it
        traceback.print_exc()
        os._exit(70)
