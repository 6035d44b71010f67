/** Dark or light: what the system prefers, unless it was chosen here. */

const CHOICE = "hypclip-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  document.documentElement.dataset.theme = localStorage.getItem(CHOICE) ?? (dark.matches ? "dark" : "light");
}

export function startTheme() {
  apply();
  dark.addEventListener("change", apply);
}

/** Change to the other one. Choosing what the system prefers follows it again. */
export function toggleTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  if ((next === "dark") === dark.matches) localStorage.removeItem(CHOICE);
  else localStorage.setItem(CHOICE, next);
  apply();
}
