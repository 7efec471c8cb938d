"""What a Valkey that counts requests can do: nothing, it is done without."""

import asyncio
import signal

from benchmarks.faults.fault import NOTHING, Fault
from benchmarks.faults.scene import Scene

PLENTY = "1000000/m"
SETTINGS = {
    "limits__enabled": "true",
    "valkey__url": "{valkey}",
    "server__workers": "2",
    **{f"limits__{name}": PLENTY for name in ("login", "register", "refresh", "read", "write", "admin")},
}


async def killed(scene: Scene) -> None:
    """It is killed, and started again."""
    assert scene.valkey is not None
    scene.begin_fault()
    await asyncio.to_thread(scene.valkey.kill)
    await scene.wait(4)
    await asyncio.to_thread(scene.valkey.start)
    scene.heal()


async def hung(scene: Scene) -> None:
    """It takes commands and answers none."""
    assert scene.valkey is not None
    scene.begin_fault()
    scene.valkey.signal(signal.SIGSTOP)
    try:
        await scene.wait(4)
    finally:
        scene.valkey.signal(signal.SIGCONT)
    scene.heal()


FAULTS = (
    Fault("valkey-killed", "Valkey is killed", killed, fails=NOTHING, slowest=0.5, settings=SETTINGS, has_valkey=True),
    Fault("valkey-hung", "Valkey hangs (SIGSTOP)", hung, fails=NOTHING, slowest=0.5, settings=SETTINGS,
          has_valkey=True),
)  # fmt: skip
