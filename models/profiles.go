package models

import _ "embed" // the table of profiles

//go:embed profiles.csv
var profiles string

// Profiles is profiles.csv: what others have measured and published about their models.
func Profiles() string { return profiles }
