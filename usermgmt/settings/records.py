"""What is kept, and for how long."""

from typing import Annotated

from pydantic import Field

from usermgmt.settings.kinds import LONGEST, Lifetime, Section
from usermgmt.settings.values import Between, Duration


class AuditSettings(Section):
    """The record of who did what."""

    retention: Annotated[Duration, Between(Duration.parse("1d"), LONGEST)] = Field(
        default=Duration.parse("3650d"), description="Duration for which events are kept."
    )
    seal_interval: Annotated[Duration, Between(Duration.parse("100ms"), Duration.parse("1h"))] = Field(
        default=Duration.parse("5s"), description="Duration between two seals."
    )


class RetentionSettings(Section):
    """How long what is over is kept."""

    deleted_users: Lifetime = Field(
        default=Duration.parse("30d"), description="Duration after which a deleted account is erased."
    )
    sessions: Lifetime = Field(
        default=Duration.parse("90d"),
        description="Duration after which a session that was ended, or reached its end, leaves the record.",
    )
