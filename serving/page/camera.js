// A photo from the camera. Browsers lend it to pages only over HTTPS or on this very machine: elsewhere a phone's own
// camera takes the picture, through an input.

const dialog = document.getElementById("camera");
const video = dialog.querySelector("video");
const problem = dialog.querySelector(".problem");
const shoot = dialog.querySelector(".shoot");

export function setUpCamera(take) {
  const capture = document.getElementById("capture");
  capture.addEventListener("change", () => capture.files.length && take([...capture.files]));
  document.getElementById("photograph").addEventListener("click", () => {
    if (navigator.mediaDevices?.getUserMedia) open();
    else capture.click();
  });
  video.addEventListener("playing", () => (shoot.disabled = false));
  shoot.addEventListener("click", async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    dialog.close();
    take([new File([blob], "photo.jpg", { type: "image/jpeg" })]);
  });
  dialog.querySelector(".leave").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
}

async function open() {
  problem.hidden = true;
  shoot.disabled = true;
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    if (!dialog.open) stop(); // it was left while the browser asked
  } catch (error) {
    problem.textContent =
      error.name === "NotAllowedError"
        ? "The browser does not let this page use the camera. Allow it for this address, or choose a picture."
        : "No camera was found. Choose a picture instead.";
    problem.hidden = false;
  }
}

function stop() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
