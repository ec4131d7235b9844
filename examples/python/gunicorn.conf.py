# gunicorn -c gunicorn.conf.py pdroute_gateway:app
worker_class = "pdroute_gateway.worker.Worker"
graceful_timeout = 86400  # a reload ends no answer; stop faster with SIGQUIT
timeout = 60
backlog = 1024
loglevel = "warning"
