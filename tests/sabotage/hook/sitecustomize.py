"""Apply the sabotage that PROVISIONER_SABOTAGE names, before a module of the program is imported.

Python imports this module at its start if this folder is on PYTHONPATH. The sabotage therefore applies to the
process of the tests and to the processes that the tests start with the same environment.
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
