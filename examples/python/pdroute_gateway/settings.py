"""What the environment says. The router's configuration, and its servers, are in a JSON file, the same as nginx's."""
from __future__ import annotations

import os
import typing


class Settings:
    """
    PDROUTE_BLOCK               path of the block file [/dev/shm/pdroute/main]
    PDROUTE_CONFIG              JSON file with members of pdr_config and `endpoints` [none: the block as it is]
    PDROUTE_RECREATE            1: replace a block of another configuration
    PDROUTE_ACCESS_LOG          file that gets one JSON line per request; - is stdout [none]
    PDROUTE_CONNECT_TIMEOUT     seconds, to a worker [5]
    PDROUTE_BODY_TIMEOUT        seconds within which a request's whole body must be there, however it comes [300]
    PDROUTE_READ_TIMEOUT        seconds of silence within an answer that has begun [86400]
    PDROUTE_KEEPALIVE           idle connections kept per worker address and process [256]
    PDROUTE_KEEPALIVE_TIMEOUT   seconds they are kept [4]; SGLang's server closes them after 5
    """

    def __init__(self, environment: typing.Mapping[str, str] = os.environ) -> None:
        get = environment.get
        self.block = get("PDROUTE_BLOCK") or "/dev/shm/pdroute/main"
        self.config = get("PDROUTE_CONFIG") or None
        self.recreate = get("PDROUTE_RECREATE", "") not in ("", "0")
        self.access_log = get("PDROUTE_ACCESS_LOG") or None
        self.connect_timeout = float(get("PDROUTE_CONNECT_TIMEOUT") or 5)
        self.body_timeout = float(get("PDROUTE_BODY_TIMEOUT") or 300)
        self.read_timeout = float(get("PDROUTE_READ_TIMEOUT") or 86400)
        self.keepalive = int(get("PDROUTE_KEEPALIVE") or 256)
        self.keepalive_timeout = float(get("PDROUTE_KEEPALIVE_TIMEOUT") or 4)
