"""Any gateway: PDROUTE_GATEWAY_COMMAND (or --gateway-command) is a shell command with {port}, {config}, {block}, {dir}, {workers} in it.

PDROUTE_GATEWAY_CAN lists what it can of host.FEATURES, with commas.
"""

import os

from hosts.host import FEATURES, Host


class Gateway(Host):
    name = "command"
    can = frozenset(os.environ.get("PDROUTE_GATEWAY_CAN", "").replace(",", " ").split())
    assert can <= set(FEATURES), can - set(FEATURES)

    def command(self):
        line = os.environ.get("PDROUTE_GATEWAY_COMMAND")
        if not line:
            raise RuntimeError("PDROUTE_GATEWAY_COMMAND (or --gateway-command) is not given")
        values = {"port": self.port, "config": self.config_file, "block": self.block, "dir": self.dir, "workers": self.workers}
        for name, value in values.items():
            line = line.replace("{" + name + "}", str(value))
        return ["sh", "-c", "exec " + line]
