"""Large inputs are prepared in threads, and none is taken that would be late."""

import asyncio
import math
import time

import pytest

from serving.decoding import Decoders
from serving.problems import Overloaded


def test_what_would_be_late_or_only_just_in_time_is_refused() -> None:
    async def scenario() -> None:
        decoders = Decoders(2)
        now = asyncio.get_running_loop().time
        decoders.check(deadline=now() + 0.001, ahead=1000)  # nothing is known yet
        await decoders.run(lambda: time.sleep(0.2), deadline=math.inf, ahead=0)
        assert decoders.waiting == 0
        with pytest.raises(Overloaded) as refused:
            decoders.check(deadline=now() + 1.2, ahead=10)  # five turns of 0.2 seconds
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1
        decoders.check(deadline=now() + 60, ahead=10)
        decoders.close()

    asyncio.run(scenario())
