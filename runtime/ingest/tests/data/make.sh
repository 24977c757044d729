#!/bin/sh
# Makes the small streams of this folder and FFmpeg's checksum of each of their frames. Needs ffmpeg with libx264 and
# libx265 (made with 5.1.9). The streams are in the repository: run this only to change them, and look at what changes.
set -eu
cd "$(dirname "$0")"
FF="ffmpeg -v error -y"
X4="-c:v libx264 -preset medium -x264-params"
X5="-c:v libx265 -preset medium -x265-params"
test_picture() { echo "-f lavfi -i testsrc2=size=$1:rate=$2:duration=$3"; }

# The checksum of what the decoder gives. The range is the stream's own on both sides, so that nothing is converted; the
# times are the file's own, too, which ffmpeg would move to begin at 0; and it crops where the stream says (unaligned). The
# second argument is for the output, the third one a further filter.
sums() {
    range=$(ffprobe -v error -select_streams v -show_entries stream=color_range -of csv=p=0 "$1" | head -1)
    case "$range" in pc) range=full ;; *) range=limited ;; esac
    $FF -copyts -flags unaligned -i "$1" -map 0:v:0 ${2:-} -vsync 0 -vf "scale=in_range=$range:out_range=$range,format=nv12${3:-}" -f framemd5 "$1.framemd5"
}

# H.264 High, B pyramid, cropped from 192x112, full range BT.709, one key picture, the index in front
$FF $(test_picture 190x106 25 1) -pix_fmt yuv420p $X4 "bframes=5:b-pyramid=normal:b-adapt=0:keyint=infinite:ref=4:crf=30:fullrange=on:colorprim=bt709:transfer=bt709:colormatrix=bt709" \
    -movflags +faststart crop_b.mp4
sums crop_b.mp4
# the same from 0.2 s on, cut by an edit list alone
$FF -ss 0.2 -i crop_b.mp4 -c copy edit_list.mp4
sums edit_list.mp4
# the same in fragments
$FF -i crop_b.mp4 -c copy -movflags +frag_keyframe+empty_moov+default_base_moof fragmented.mp4
sums fragmented.mp4

# 96x64 are coded, and the bitstream crops nothing: the container alone says that 94x56 are shown
$FF $(test_picture 96x64 25 0.4) -pix_fmt yuv420p $X4 "bframes=2:crf=30" stated_size.mp4
python3 -c '
data = bytearray(open("stated_size.mp4", "rb").read())
at = data.index(b"avc1", data.index(b"stsd")) + 4
data[at + 24 : at + 28] = (94).to_bytes(2, "big") + (56).to_bytes(2, "big")
open("stated_size.mp4", "wb").write(data)'
sums stated_size.mp4
$FF -i stated_size.mp4 -c copy stated_size.mkv
sums stated_size.mkv

# 29.97 frames a second, several closed groups with B pyramids, weighted prediction
$FF $(test_picture 128x96 30000/1001 1.4) -pix_fmt yuv420p $X4 "bframes=4:b-pyramid=normal:weightp=2:keyint=12:ref=4:crf=32" pyramid.264
sums pyramid.264
# open groups: key pictures are recovery points
$FF $(test_picture 128x96 25 1.6) -pix_fmt yuv420p $X4 "open-gop=1:bframes=3:b-adapt=0:keyint=10:min-keyint=10:scenecut=0:crf=32" open_gop.264
sums open_gop.264
# Constrained Baseline, four slices a picture, three references
$FF $(test_picture 128x96 25 1) -pix_fmt yuv420p -profile:v baseline $X4 "slices=4:ref=3:keyint=10:crf=32" baseline_slices.264
sums baseline_slices.264
# High, CABAC, four slices a picture
$FF $(test_picture 128x96 25 0.8) -pix_fmt yuv420p $X4 "slices=4:bframes=2:keyint=7:crf=32" slices.264
sums slices.264
# Main, CAVLC, temporal direct prediction
$FF $(test_picture 96x64 25 1) -pix_fmt yuv420p -profile:v main $X4 "cabac=0:bframes=3:direct=temporal:keyint=20:crf=32" cavlc_b.264
sums cavlc_b.264
# coded as if interlaced, every picture a frame
$FF $(test_picture 96x64 25 0.6) -pix_fmt yuv420p $X4 "fake-interlaced=1:bframes=2:crf=34" fake_interlaced.264
sums fake_interlaced.264
# colour descriptions: BT.601 full range, BT.2020 limited with top left chroma
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv420p $X4 "fullrange=on:colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m:crf=34" bt601_full.264
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv420p $X4 "fullrange=off:colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc:chromaloc=2:crf=34" bt2020.264
sums bt601_full.264
sums bt2020.264
# cropped at all four sides, for each of the two decoders
$FF $(test_picture 128x96 25 0.4) -pix_fmt yuv420p $X4 "crop-rect=10,6,4,2:bframes=2:crf=34" crop_left_top.264
$FF $(test_picture 128x96 25 0.4) -pix_fmt yuv420p -profile:v baseline $X4 "crop-rect=10,6,4,2:crf=34" crop_left_top_baseline.264
sums crop_left_top.264
sums crop_left_top_baseline.264
# pictures of fewer than 256 bytes, so that an MP4 can have lengths of one byte
$FF -f lavfi -i color=gray:size=64x48:rate=25:duration=0.2 -pix_fmt yuv420p $X4 "bframes=2:crf=40" -bsf:v filter_units=remove_types=6 flat.264
sums flat.264
# a stream that changes size
$FF $(test_picture 96x64 25 0.4) -pix_fmt yuv420p $X4 "bframes=2:crf=34" a.264
$FF $(test_picture 160x90 25 0.4) -pix_fmt yuv420p $X4 "bframes=2:crf=34" b.264
cat a.264 b.264 > resize.264
{ sums a.264; sums b.264; cat a.264.framemd5; grep -v '^#' b.264.framemd5; } > resize.264.framemd5
rm a.264 b.264 a.264.framemd5 b.264.framemd5
# a stream that changes its crop and keeps its coded size of 96x64
for height in 60 58 62; do
    $FF $(test_picture 96x$height 25 0.3) -pix_fmt yuv420p $X4 "bframes=2:crf=34" $height.264
    sums $height.264
done
cat 60.264 58.264 62.264 > crop_changes.264
{ cat 60.264.framemd5; grep -hv '^#' 58.264.framemd5 62.264.framemd5; } > crop_changes.264.framemd5
rm 60.264 58.264 62.264 60.264.framemd5 58.264.framemd5 62.264.framemd5
# macroblocks of raw samples beside deblocked ones: from the first picture on; from the third; with B pictures; by CAVLC; in
# Baseline; in a cropped picture
while read -r name size at options; do
    $FF -nostdin $(test_picture $size 25 0.4) -f lavfi -i "nullsrc=s=32x32:r=25:d=0.4,geq=random(1)*255:random(2)*255:random(3)*255" \
        -filter_complex "[0][1]overlay=$at" -pix_fmt yuv420p $X4 "qp=16:psy=0:subme=9:keyint=5:deblock=6,6:chroma-qp-offset=3:$options" $name.264
    sums $name.264 </dev/null
done <<RAW
raw_blocks 96x64 x=32:y=16 bframes=0
raw_blocks_late 96x64 x=32:y=16:enable='gte(n,2)' bframes=0
raw_blocks_b 96x64 x=32:y=16 bframes=2:b-adapt=0
raw_blocks_cavlc 96x64 x=32:y=16 bframes=0:cabac=0
raw_blocks_baseline 96x64 x=32:y=16 bframes=0:cabac=0:8x8dct=0:weightp=0
raw_blocks_crop 86x56 x=64:y=32 bframes=0
RAW

# H.265 Main: B pyramid with open groups; cropped, in MP4; a closed one for damage
$FF $(test_picture 128x96 25 1.6) -pix_fmt yuv420p $X5 "open-gop=1:bframes=4:keyint=12:min-keyint=12:crf=34:log-level=error" open_gop.265
sums open_gop.265
$FF $(test_picture 190x106 25 0.8) -pix_fmt yuv420p $X5 "bframes=3:crf=34:range=full:colorprim=bt709:transfer=bt709:colormatrix=bt709:log-level=error" -tag:v hvc1 h265_crop.mp4
sums h265_crop.mp4
$FF $(test_picture 96x64 30 1.2) -pix_fmt yuv420p $X5 "open-gop=0:bframes=2:keyint=9:min-keyint=9:crf=34:log-level=error" closed_gop.265
sums closed_gop.265
# units without a transform, which FFmpeg 5.1.9 decodes to other samples; the stream has the MD5 of each plane of each picture
$FF $(test_picture 96x64 25 0.32) -pix_fmt yuv420p $X5 "cu-lossless=1:rd=4:hash=1:crf=12:log-level=error:pools=1:frame-threads=1" cu_lossless.265

# turned by the file's display matrix, which ffmpeg applies by itself
$FF -i crop_b.mp4 -c copy -metadata:s:v:0 rotate=90 turned/turned.mp4
sums turned/turned.mp4
# what each orientation makes of six pictures, by FFmpeg's filters
for stream in cavlc_b.264 closed_gop.265; do
    while read -r name filter; do
        $FF -nostdin -i $stream -frames:v 6 -vf "format=yuv420p,$filter,format=nv12" -f framemd5 turned/$stream.$name.framemd5
    done <<TURNS
90 transpose=clock
180 hflip,vflip
270 transpose=cclock
mirror hflip
mirror_90 hflip,transpose=clock
mirror_180 vflip
mirror_270 hflip,transpose=cclock
TURNS
done

# intra refresh: one IDR, then recovery points that are exact some frames later
$FF $(test_picture 128x96 25 2.4) -pix_fmt yuv420p $X4 "intra-refresh=1:keyint=14:bframes=0:ref=1:crf=32" intra_refresh.264
sums intra_refresh.264
$FF $(test_picture 128x96 25 2.4) -pix_fmt yuv420p $X4 "intra-refresh=1:keyint=14:bframes=2:ref=3:b-pyramid=none:crf=32" intra_refresh_b.264
sums intra_refresh_b.264

# transport streams: B pyramid at 29.97 in closed groups; times that wrap round after half of it; H.265 in open groups; two
# programs, the first with sound alone
$FF $(test_picture 128x96 30000/1001 1.4) -pix_fmt yuv420p $X4 "bframes=4:b-pyramid=normal:keyint=12:ref=4:crf=36" b.mp4
$FF $(test_picture 128x96 25 1.6) -pix_fmt yuv420p $X5 "open-gop=1:bframes=4:keyint=12:min-keyint=12:crf=36:log-level=error" -tag:v hvc1 b265.mp4
TS="-c copy -muxdelay 0.2 -f mpegts"
$FF -i b.mp4 $TS pyramid.ts
$FF -i b.mp4 -output_ts_offset 95442.7 $TS wrap.ts
$FF -i b265.mp4 $TS open_gop_265.ts
$FF -i b.mp4 -i crop_b.mp4 -f lavfi -i "sine=d=1" -map 2:a -map 0:v -map 1:v -c:v copy -c:a mp2 -b:a 32k -shortest \
    -program program_num=9:st=0 -program program_num=7:st=0:st=1 -program program_num=8:st=2 -muxdelay 0.2 -f mpegts two_programs.ts
# Matroska: with all sizes and cues; as live recorders write it, beside sound; H.265
$FF -i b.mp4 -c copy pyramid.mkv
$FF -i crop_b.mp4 -f lavfi -i "sine=d=1" -map 0:v -map 1:a -c:v copy -c:a mp2 -b:a 32k -live 1 -cluster_time_limit 200 -f matroska live.mkv
$FF -i b265.mp4 -c copy open_gop_265.mkv
for container in pyramid.ts open_gop_265.ts two_programs.ts pyramid.mkv live.mkv open_gop_265.mkv; do
    # in the container's own ticks; those of a transport stream from its first picture on
    case $container in *.ts) from=",setpts=PTS-STARTPTS" ;; *) from= ;; esac
    sums $container "-enc_time_base -1" "$from"
done
rm b.mp4 b265.mp4

# Motion JPEG in each container, and what is in it; H.264 and H.265 in AVI. stills/make.py makes single pictures.
$FF $(test_picture 64x48 10 0.6) -c:v mjpeg -q:v 3 -pix_fmt yuvj420p mjpeg.mov
for name in mjpeg.mp4 mjpeg.mkv mjpeg.avi mjpeg.mjpeg; do
    $FF -i mjpeg.mov -c copy $name
done
$FF -i mjpeg.mov -vf scale=in_range=full:out_range=full,format=nv12 -f rawvideo mjpeg.nv12
$FF -i cavlc_b.264 -c copy h264.avi
$FF -r 25 -i closed_gop.265 -c copy -tag:v HEVC h265.avi

# refused: interlaced, 4:2:2, lossless, 10 bit in both codecs
$FF $(test_picture 96x64 25 0.2) -pix_fmt yuv420p $X4 "tff=1:crf=34" interlaced.264
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv422p $X4 "crf=34" chroma422.264
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv420p $X4 "qp=0" lossless.264
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv420p10le $X4 "crf=34" ten_bit.264
$FF $(test_picture 64x48 25 0.2) -pix_fmt yuv420p10le $X5 "crf=34:log-level=error" ten_bit.265
du -cb ./* | tail -1
