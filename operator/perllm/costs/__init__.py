"""What the energy of nodes costs, in money and carbon: tariffs, their forecasts, and the cost of a joule."""
