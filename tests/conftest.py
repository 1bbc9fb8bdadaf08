"""What all tests share: laws that were not shown are listed in the report."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["catga.testing.report"]

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell started us in the background: what is started here would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
