"""What several commands share: options, checks, settings, engines, log lines. No command."""
