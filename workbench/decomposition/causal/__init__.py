"""Do the features move the model? The verdict on candidates, the screen of many, the audit of their sum."""
