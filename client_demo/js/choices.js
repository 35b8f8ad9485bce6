// Groups of radio buttons: the presenters with their pictures, and the emotions. Native inputs, so that arrow keys,
// focus and screen readers work by themselves.

/** Fills `root` with the presenters. `choose(avatar)` is called when the person picks another. */
export function buildGallery(root, avatars, chosen, choose) {
  root.replaceChildren(
    ...avatars.map((avatar) => {
      const picture = document.createElement("img");
      picture.src = avatar.picture;
      picture.alt = "";
      picture.width = picture.height = 256;
      const { name } = avatar;
      const label = choice("presenter", name, name === chosen, () => choose(avatar), avatar.label ?? capital(name));
      label.title = avatar.description ?? "";
      label.querySelector("input").after(picture);
      return label;
    }),
  );
}

export function buildChips(root, names, chosen, choose) {
  root.replaceChildren(
    ...names.map((name) => choice("chip", name, name === chosen, () => choose(name), capital(name))),
  );
}

function choice(group, value, isChosen, choose, text) {
  const label = document.createElement("label");
  label.className = group;
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: group, value, checked: isChosen });
  input.addEventListener("change", choose);
  const name = document.createElement("span");
  name.textContent = text;
  label.append(input, name);
  return label;
}

export function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
