"""Envoy with pdroute-extproc, which sends both legs: the failure table as it should be."""

from hosts import ext_proc


class Gateway(ext_proc.Gateway):
    name = "ext_proc_both"
    cannot = {k: v for k, v in ext_proc.Gateway.cannot.items() if v == ext_proc.PROCESSES}
    instead = {}

    def __init__(self, directory, endpoints, flags=(), **options):
        super().__init__(directory, endpoints, flags=("--dispatch", "both", *flags), **options)
