"""Connected subscribers, one and all."""
