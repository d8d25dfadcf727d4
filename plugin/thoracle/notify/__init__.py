"""People and programs that are told of results and alarms: webhooks and e-mail."""
