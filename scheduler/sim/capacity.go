package sim

// capacitySteps is how often a search for the capacity halves what is left.
const capacitySteps = 7

// Capacity is the highest load, as a multiple of some unit, at which meets says
// true, for all that is known from a search between 0 and most: at load it was
// met, at above it was not. Above is 0 when even most was met, and load is 0
// when none was. It assumes that what is met at a load is met below it.
func Capacity(most float64, meets func(load float64) (bool, error)) (load, above float64, err error) {
	ok, err := meets(most)
	if err != nil || ok {
		return most, 0, err
	}
	above = most
	for range capacitySteps {
		middle := (load + above) / 2
		if ok, err = meets(middle); err != nil {
			return 0, 0, err
		}
		if ok {
			load = middle
		} else {
			above = middle
		}
	}
	return load, above, nil
}
