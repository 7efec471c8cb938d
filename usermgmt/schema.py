"""All tables together: `metadata` is complete once this module is imported. Migrations and tests start from here."""

from usermgmt.audit import models as audit
from usermgmt.groups import models as groups
from usermgmt.idempotency import models as idempotency
from usermgmt.ip_rules import models as ip_rules
from usermgmt.maintenance import models as maintenance
from usermgmt.roles import models as roles
from usermgmt.root_secrets import models as root_secrets
from usermgmt.sessions import models as sessions
from usermgmt.signing_keys import models as signing_keys
from usermgmt.storage.types import Base
from usermgmt.throttle import models as throttle
from usermgmt.users import models as users

metadata = Base.metadata
MODELS = (
    audit,
    groups,
    idempotency,
    ip_rules,
    maintenance,
    roles,
    root_secrets,
    sessions,
    signing_keys,
    throttle,
    users,
)
