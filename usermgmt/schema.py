"""All tables together: `metadata` is complete once this module is imported. Migrations and tests start from here."""

from usermgmt.audit import models as audit
from usermgmt.idempotency import models as idempotency
from usermgmt.roles import models as roles
from usermgmt.sessions import models as sessions
from usermgmt.signing_keys import models as signing_keys
from usermgmt.storage.types import Base
from usermgmt.users import models as users

metadata = Base.metadata
MODELS = (audit, idempotency, roles, sessions, signing_keys, users)
