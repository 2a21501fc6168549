// What the page says of itself while it is live: figures that nobody sends any more are not shown as today's.
"use strict";
document.addEventListener("htmx:sseError", function () {
  const moment = document.getElementById("moment");
  if (moment && !moment.dataset.lost) {
    moment.dataset.lost = "yes";
    const said = document.createElement("strong");
    said.className = "bad";
    said.textContent = "Not live: the connection is lost; what is shown is old. ";
    moment.prepend(said);
  }
});
document.addEventListener("htmx:sseOpen", function () {
  const moment = document.getElementById("moment");
  if (moment) { delete moment.dataset.lost; }
});
