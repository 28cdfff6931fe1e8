# A hundred requests, one after the other, and how they ended, counted.
for number in $(seq 100); do
    curl -s -m 3 -o /dev/null -w '%{http_code}\n' http://10.96.0.80
    sleep 0.03
done | sort | uniq -c
