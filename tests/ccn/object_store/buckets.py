"""Makes a bucket of a Swift store, or lists what is in it: `buckets.py CONFIGURATION make|list BUCKET`.

By the store's own client from inside, which needs no key."""

import os
import sys

from swift.common.internal_client import InternalClient
from swift.common.utils import set_swift_dir

# The account of the store's one user.
ACCOUNT = "AUTH_test"

configuration, task, bucket = sys.argv[1:]
set_swift_dir(os.path.dirname(configuration))
client = InternalClient(configuration, "tests", 3)
if task == "make":
    client.create_container(ACCOUNT, bucket)
elif client.container_exists(ACCOUNT, bucket):
    for found in client.iter_objects(ACCOUNT, bucket):
        print(found["name"])
