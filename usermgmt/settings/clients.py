"""Which address a client has, how much it may do, and where that is counted."""

import re
import warnings
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from usermgmt.settings.kinds import SHORTEST, Section, Switch
from usermgmt.settings.values import Between, Budget, Duration, read_list

_VALKEY_URL = re.compile(
    r"(?:valkeys?|rediss?)://(?:[^@/?#\s]*@)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[0-9]*)?"
    r"(?:\?ssl_ca_certs=[^?#&\s]+)?|unix://(?:[^@/?#\s]*@)?/[^?#\s]+(?:\?db=[0-9]+)?"
)


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, without host bits") from None


def _valkey_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text and not _VALKEY_URL.fullmatch(text):
        raise ValueError("must have the form valkey://user:password@host:port/number (or valkeys, redis, rediss, unix)")
    return url


ProxyNetwork = Annotated[str, AfterValidator(_network)]


class NetworkSettings(Section):
    """How the address of a client is found."""

    trusted_proxies: Annotated[tuple[ProxyNetwork, ...], BeforeValidator(read_list)] = Field(
        default=(),
        description="Networks of the proxies whose forwarding header is believed, such as 10.0.0.0/8; empty: none.",
    )
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = Field(
        default="X-Forwarded-For", description="The header in which the trusted proxies tell the client's address."
    )


with warnings.catch_warnings():
    # Classes have ABCMeta.register, which pydantic takes for a shadowed attribute; instances do not have it.
    warnings.filterwarnings("ignore", message='Field name "register"')

    class LimitsSettings(Section):
        """Budgets of requests, for each caller: a count and a period, such as 20/m or 5/10s."""

        enabled: Switch = Field(default=True, description="Whether budgets are enforced, true or false.")
        login: Budget = Field(default=Budget.parse("300/m"), description="Sign-ins, as a count a period.")
        register: Budget = Field(default=Budget.parse("300/m"), description="Registrations, as a count a period.")
        refresh: Budget = Field(default=Budget.parse("600/m"), description="Refreshed sessions, as a count a period.")
        read: Budget = Field(default=Budget.parse("6000/m"), description="Requests that read, as a count a period.")
        write: Budget = Field(default=Budget.parse("1200/m"), description="Requests that write, as a count a period.")
        admin: Budget = Field(
            default=Budget.parse("1200/m"), description="Requests for administrators, as a count a period."
        )
        unknown: Budget = Field(
            default=Budget.parse("300/m"), description="Requests for paths and methods that do not exist."
        )


class ThrottleSettings(Section):
    """How many wrong guesses of a secret are taken, as a count a period."""

    enabled: Switch = Field(default=True, description="Whether guesses are counted, true or false.")
    account: Budget = Field(
        default=Budget.parse("10/15m"),
        description="Failed sign-ins to one account; each network that signed in to it before has its own.",
    )
    network: Budget = Field(
        default=Budget.parse("100/15m"), description="Failed sign-ins from one IPv4 address or one IPv6 /64."
    )
    session: Budget = Field(default=Budget.parse("10/15m"), description="Wrong current passwords within one session.")
    refresh: Budget = Field(
        default=Budget.parse("100/15m"), description="Refresh tokens that were never issued, from one network."
    )


class ValkeySettings(Section):
    """A Valkey or Redis server in which workers and instances count requests together; several workers need it."""

    url: Annotated[SecretStr, AfterValidator(_valkey_url)] = Field(
        default=SecretStr(""),
        description="URL, as in valkey://:password@host:6379/0; empty: each process counts alone.",
    )
    timeout: Annotated[Duration, Between(SHORTEST, Duration.parse("1s"))] = Field(
        default=Duration.parse("50ms"), description="Duration to wait for an answer before counting alone."
    )
