"""Programs that read what runs leave behind. Nothing of the core imports them."""
