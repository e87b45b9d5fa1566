package scheduler

// tenant is who requests belong to.
type tenant struct{ name string }
