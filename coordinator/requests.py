"""Names of launches: a request that is sent again under its id is the same job. Knows no job."""

import re
import secrets
import time

REQUEST_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


def new_request_id() -> str:
    """Returns an id for one launch, to be sent with every try of it; the job's own id ends in it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
