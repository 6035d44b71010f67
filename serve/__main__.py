"""Start the server: python -m serve --checkpoint DIR --index DIR. See serve/command.py.

The processes of the model import this module too, and need nothing of it.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # The imports take seconds, in which a Ctrl-C would end in a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from serve.command import main

    signal.signal(signal.SIGINT, handler)
    sys.exit(main())
