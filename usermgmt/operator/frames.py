"""The frames of an HTTP/2 connection as they come in: since when one has not ended, and what they cost."""

import time

FRAMES_AT_A_TURN = 50
ANY_STREAM = 2**31 - 1
PREFACE_BYTES = 24
FRAME_HEAD_BYTES = 9
DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_HEADERS = 4
SETTING_BYTES = 6
FREE_BODY_BYTES = 32  # or more of a body in a frame cost nothing: a row of a file, sent as it is made
EARNED_BY_REQUEST = 4  # the end of its body, and windows for its answer


class Allowance:
    """How often something may happen: so often at once, and so often a second from then on."""

    def __init__(self, at_once: float, a_second: float) -> None:
        self._most, self._a_second = at_once, a_second
        self._left, self._seen = at_once, time.monotonic()

    def takes(self, cost: float = 1) -> bool:
        """Whether it may happen once more, or so often. What is below 0 is earned."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._seen) * self._a_second - cost)
        self._seen = now
        return self._left >= 0


class Frames:
    """Follows the frames that come in, to tell since when one of them, or a head of several, has not ended, and what
    they cost.

    A request and a body cost nothing here: they have limits of their own. Any other frame costs one, also one of an
    unknown kind, and of settings each: nine bytes are as much work as a thousand.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._has_asked = self._is_within_head = False
        self._head = bytearray()  # of the present frame
        self._missing = PREFACE_BYTES
        self._kind = self._flags = self._stream = -1
        self._last_asked = 0
        self._cost = 0

    def follow(self, data: bytes, at: int, now: float) -> int:
        """Take note of bytes that came, of no more than `FRAMES_AT_A_TURN` frames; where these end."""
        frames = 0
        while at < len(data) and frames < FRAMES_AT_A_TURN:
            if self._missing:
                taken = min(self._missing, len(data) - at)
                self._missing -= taken
            else:
                taken = FRAME_HEAD_BYTES - len(self._head)
                if not self._head and not self._is_within_head and self._has_asked:
                    self._began = now
                self._head += data[at : at + taken]
                self._note_head()
            at += taken
            if not self._missing and len(self._head) == FRAME_HEAD_BYTES:
                self._note_end()
                frames += 1
        return min(at, len(data))

    def cost(self) -> int:
        """What the frames cost that began since this was last asked."""
        cost, self._cost = self._cost, 0
        return cost

    def unfinished_since(self) -> float | None:
        """When the frame or the head began that has not ended; at first, when the connection did. None: neither has."""
        is_whole = not self._head and not self._is_within_head and self._has_asked
        return None if is_whole else self._began

    def data_of(self) -> int | None:
        """The stream of the body of which a frame has begun, if that is what has not ended."""
        return self._stream if self._has_asked and self._missing and self._kind == DATA else None

    def _note_head(self) -> None:
        if len(self._head) < FRAME_HEAD_BYTES:
            return
        self._missing = int.from_bytes(self._head[:3])
        self._kind, self._flags = self._head[3:5]
        self._stream = int.from_bytes(self._head[5:]) & ANY_STREAM
        self._cost += self._cost_of_frame()

    def _cost_of_frame(self) -> int:
        if self._kind == HEADERS and self._stream > self._last_asked:
            self._last_asked = self._stream
            return -EARNED_BY_REQUEST
        if self._kind == SETTINGS:
            return 1 + self._missing // SETTING_BYTES
        return 0 if self._kind == DATA and self._missing >= FREE_BODY_BYTES else 1

    def _note_end(self) -> None:
        self._head.clear()
        if self._kind in (HEADERS, CONTINUATION):
            self._is_within_head = not self._flags & END_HEADERS
            self._has_asked = self._has_asked or not self._is_within_head
